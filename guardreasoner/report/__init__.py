"""Pages (self-contained HTML, readable on a phone, in the dark and on paper), and tables for the screen."""
