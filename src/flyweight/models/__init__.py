"""Networks: the catalogue, how they are adapted and folded, and what they cost.

Import what you need from its module (`flyweight.models.zoo`, `.architecture`, `.cost` …): this file imports nothing,
so that counting the cost of a shipped file needs no torch.
"""
