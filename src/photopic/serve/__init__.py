"""The HTTP service of ``photopic guard serve``: one picture in, one decision out; no request can stop it.

``app`` answers requests, ``limits`` turns a body into a picture or a refusal, ``protocol`` keeps slow and broken senders off,
``counts`` is what ``GET /metrics`` shows. Nothing of a picture is logged or kept.
"""
