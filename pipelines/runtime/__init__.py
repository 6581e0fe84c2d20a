"""This process and this machine: errors, text, console, files, signals, environment. Imports no other room."""
