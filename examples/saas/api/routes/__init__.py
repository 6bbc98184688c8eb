"""One router for each area of the product."""
