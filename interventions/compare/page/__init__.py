"""report.html: one page with the claims, figures, samples and tables of a comparison, which needs nothing else."""
