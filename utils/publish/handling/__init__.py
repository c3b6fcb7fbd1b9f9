"""What handler.py answers with. Copied beside it into the export folder: modules here import each other, and nothing of
ours besides."""
