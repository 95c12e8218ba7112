"""The page on which a person rates models' reasoning: cases, a session that keeps ratings, a local web application."""
