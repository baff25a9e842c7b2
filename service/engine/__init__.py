"""Engines: what turns a prompt's token ids into more token ids. One Protocol, two implementations."""
