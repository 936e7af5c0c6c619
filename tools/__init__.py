"""Small programs of the Makefile: render from records, lock versions."""
