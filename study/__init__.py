"""The study: nine variants from the page and eight as run, ten seeds each; its report."""
