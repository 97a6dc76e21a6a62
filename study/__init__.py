"""The study: nine variants, ten seeds each, and a report of what they say. See PROTOCOL.md."""
