"""Makes what the project ships: conformance streams, tables, profiles, a picture."""
