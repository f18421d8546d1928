"""What people read: CSV, Slicer markups, HTML, plots."""
