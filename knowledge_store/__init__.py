"""The symbolic RAM: facts in modules, generations, lookup, and the protocol by which a core asks for them."""
