"""Small tools for this process and this host, which every layer above may use. Nothing here knows of machines."""
