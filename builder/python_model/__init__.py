"""A model that is a Python class without Triton in it: its files in a version folder, its answers in this process."""

from builder.python_model.code_files import CodeFiles, collect
from builder.python_model.packing import ServerPython, check_imports, pack, server_pythons
from builder.python_model.running import PythonRunner
from builder.python_model.step import PythonStep, check_class
from builder.python_model.writing import write_version

__all__ = [
    "CodeFiles",
    "PythonRunner",
    "PythonStep",
    "ServerPython",
    "check_class",
    "check_imports",
    "collect",
    "pack",
    "server_pythons",
    "write_version",
]
