"""``site doctor``: whether a site can take part in its study, looked into line by line; safe to send as it stands."""
