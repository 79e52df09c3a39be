"""The cases of the specification: for each its test, what it waits for, or why there is nothing to test.

The documents are not part of this repository; each has a module here that carries its counts and places.
"""
