"""The Regenerative Logic-Core Protocol: takes facts out of a causal LM, keeps its reasoning, and proves both."""
