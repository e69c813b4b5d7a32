"""A call of a method from words: what the command line and the studio make of what a person typed or chose.

``methods`` reads the manifest and configs, ``arguments`` models, edits and data, ``controls`` what steers the sampler, ``drawing``
draws as ``photopic generate`` does, ``problems`` turns an error that a user can cause into its line.
"""
