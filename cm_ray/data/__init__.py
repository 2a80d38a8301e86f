"""Images: where they come from (sources), how they are kept (shards), how they are read (order)."""
