"""What a driver's own things say, in the wire's words.

error_category         an exception as one of a fixed list of words
authentication         how a connection authenticates: mechanism, flow and `auth_type` in one decision
readers                values of properties as the wire's types
connection_parameters  a driver's properties as `DriverConnectionParameters`
field_table            each field of the wire: who fills it, from what, or why nothing does
"""
