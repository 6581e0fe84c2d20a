"""From a command line and YAML files to a data module, a module and a trainer."""
