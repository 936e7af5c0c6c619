"""The wing that is read: records in, tables and figures out. No torch, no images.

`tables` renders one table (markdown, terminal, plain values), `figures` makes a figure's data, `rendered` the folder.
"""
