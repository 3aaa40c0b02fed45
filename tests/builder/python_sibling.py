"""Imported by python_classes.py."""


def shout(text):
    return text.upper()
