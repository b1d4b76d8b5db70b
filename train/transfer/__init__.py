"""Training that goes on from a trained network: the lecture's two by two, as a decision that says why.

`strategy` decides, `stages` finds where a network can be cut, `source` opens it and cuts it in two, `recipe` has
what each strategy trains with, `lesson` teaches the second part, `job` goes from recipe and network to files.
"""
