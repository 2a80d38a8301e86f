"""A web page to try a model: sampling, editing and interpolation in a browser.

`playground` does the work without a page, `layout` builds the page with Gradio, `server` serves it and checks
requests, and `model_card` describes the model. The page reads models and never trains them.
"""
