"""The handle over text-to-image pipelines, and the parts it is made of."""
