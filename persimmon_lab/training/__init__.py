"""How the shipped model was made, from pinned packages to weights.

`sources` fetches archives, `cleaning` and `readers` turn them into documents, `corpus` into tokens; `batches` and
`drills` choose what the model sees, `initialisation` where it starts, `optimiser` and `trainer` train it, `evaluate`
measures it, `mini` runs it all.
"""
