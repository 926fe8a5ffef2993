// Linked by build.py to have the compiler make its C library.
int main(void)
{
    return 0;
}
