"""Pages that people read: one HTML file each, complete in itself."""
