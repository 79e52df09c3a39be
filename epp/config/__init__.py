"""The configuration document: ``load`` reads, completes and checks it; ``instantiate`` creates its plugins."""
