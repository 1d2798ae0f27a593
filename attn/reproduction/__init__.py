"""The machinery that takes a paper's facts to a chapter's tables: it is general and knows no paper.

facts -> experiment -> run -> record -> table -> claim -> chapter page, scoreboard, ``attn status``.
"""
