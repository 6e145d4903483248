"""One attack a file: scores per patient, larger = member."""
