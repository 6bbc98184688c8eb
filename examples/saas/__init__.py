"""A staff planning product: an API, the partner service it calls, and a demo that runs both."""
