"""Reading and writing models in the formats of other projects: OpenAI, EDM, diffusers, ONNX.

A new file format or a new source of published weights is a file here. The networks themselves are in
`cm_ray.networks`; finding a model by its name in a registry is `cm_ray.tracking`.
"""
