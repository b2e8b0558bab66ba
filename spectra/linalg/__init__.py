"""The estimators: top singular values with a certificate."""
