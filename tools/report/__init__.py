"""What studies report with: pages, figures, and where a measurement comes from."""
