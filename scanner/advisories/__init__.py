"""The vulnerability database: how old it is, where it comes from, how it is replaced."""
