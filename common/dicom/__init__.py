"""DICOM series read, told apart, put in order and written without what a header says of a person."""
