"""The one HTML page, in two renditions."""
