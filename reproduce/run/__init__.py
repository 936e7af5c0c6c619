"""The wing that computes: data sets, training, measures, records. Torch lives here; nothing here formats for people."""
