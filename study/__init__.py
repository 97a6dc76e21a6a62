"""The study: experiments, their runs, the table of all runs, and what follows from it."""
