"""Language models: text in, text out. They give a second opinion on what a recognizer read."""
