"""Everything that touches Ray, and the only place that does."""
