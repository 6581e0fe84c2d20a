"""This process and this machine: errors, text, console, signals, environment. Imports no other room."""
