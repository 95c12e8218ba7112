"""A local web page on which a person rates models' reasoning blind, and the files and summary of the ratings."""
