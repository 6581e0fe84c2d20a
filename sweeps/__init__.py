"""Many runs: searches, seeds and reproduction. May import pipelines, modules and datamodules."""
