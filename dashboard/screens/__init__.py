"""
The pages, one question each. Streamlit runs these files; nothing imports them.

Not called `pages`: Streamlit gives a folder of that name a meaning, and a fresh server would run a page that is opened
by its link without the frame around it.
"""
