"""What is seen in 3D Slicer: the only room that imports slicer, qt, ctk and vtk."""
