"""The report: what is gathered from a store's tables, its figures, and the page that holds them."""
