"""A web page to try a model on: what it does (playground), how it looks (layout), who may ask (server)."""
