"""The embedded sample data set; see LICENSE and build.py beside this file."""
