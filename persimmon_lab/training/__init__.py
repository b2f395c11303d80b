"""How the shipped model was made, from pinned packages to weights, and how to make a small one of one's own texts.

`sources` fetches archives, `cleaning` and `readers` turn them into documents, `corpus` into tokens; `templates` and
`skills` write text of our own; `recipe` holds rates and schedule, `batches` and `drills` choose what the model sees,
`initialisation` where it starts, `optimiser`, `muon` and `trainer` train it, `evaluate` measures it, `mini` runs it
all, `own` on other texts.
"""
